# ruff: noqa: E501 - a table of data: one category a line reads best
"""The demo shop's category tree, and for each shelf the words and the drawing of its products.

Some siblings share their drawing (books, discs, cables, tubes): only the text tells them apart.
Some share their words (lamps, rugs, cushions, vases): only the picture does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache

PATH_SEPARATOR = " > "


@dataclass(frozen=True, slots=True)
class Shelf:
    """One category that products stand on.

    Attributes:
        path: names from the top, joined by PATH_SEPARATOR.
        nouns: what a seller calls the product, by language ("en", "fr").
        vague: nouns that siblings share; a title with one of these leaves the shelf open.
        shapes: drawings, see `generated_pictures.SHAPES`; several at inner nodes, where lots are sold.
        patterns: what the surface may look like.
        weight: popularity, heavy-tailed; all shelves together sum to 1.
    """

    path: str
    nouns: dict[str, tuple[str, ...]]
    vague: dict[str, tuple[str, ...]]
    shapes: tuple[str, ...]
    patterns: tuple[str, ...]
    weight: float


# path | English nouns | French nouns | drawing | patterns. A parent's line comes before its children's and
# gives the vague nouns; `=` stands for "sold as lots at this node too".
_TREE = """
Clothing | clothes, outfit | vêtement, tenue
= Clothing | clothing bundle, mixed clothes lot | lot de vêtements, pack vêtements | tshirt trousers dress | plain
Clothing > Tops | top, garment | haut, vêtement
Clothing > Tops > T-shirts | t-shirt, tee, crew neck tee | t-shirt, tee-shirt, maillot col rond | tshirt | plain striped
Clothing > Tops > Shirts | shirt, button-down shirt, blouse | chemise, chemisier, chemise boutonnée | shirt | plain checked
Clothing > Tops > Sweaters | sweater, jumper, knit pullover | pull, pull-over, chandail en maille | sweater | plain striped
Clothing > Bottoms | bottoms, garment | bas, vêtement
Clothing > Bottoms > Jeans | jeans, slim jeans, denim trousers | jean, jean slim, pantalon en denim | trousers | plain
Clothing > Bottoms > Shorts | shorts, bermuda, chino shorts | short, bermuda, short chino | shorts | plain checked
Clothing > Bottoms > Skirts | skirt, midi skirt, pleated skirt | jupe, jupe plissée, jupe midi | skirt | plain dotted
Clothing > Dresses | dress, summer dress, evening gown | robe, robe d'été, robe de soirée | dress | plain dotted floral
Clothing > Accessories | fashion accessory | accessoire de mode
Clothing > Accessories > Hats | hat, sun hat, fedora | chapeau, capeline, chapeau de soleil | hat | plain
Clothing > Accessories > Sunglasses | sunglasses, shades | lunettes de soleil, solaires | glasses | plain
Shoes | shoes, footwear, pair of shoes | chaussures, paire de chaussures
= Shoes | shoe lot, mixed pairs of shoes | lot de chaussures | sneaker boot sandal | plain
Shoes > Sneakers | sneakers, trainers, running shoes | baskets, tennis, chaussures de course | sneaker | plain
Shoes > Boots | boots, ankle boots, chelsea boots | bottes, bottines, boots | boot | plain
Shoes > Sandals | sandals, flip-flops, slides | sandales, tongs, claquettes | sandal | plain
Bags | bag, carry bag | sac, bagage
Bags > Backpacks | backpack, rucksack, school backpack | sac à dos, cartable | backpack | plain dotted
Bags > Handbags | handbag, tote, shoulder bag | sac à main, cabas, besace | handbag | plain checked
Bags > Suitcases | suitcase, trolley case, cabin luggage | valise, valise cabine, bagage à roulettes | suitcase | plain
Home & Kitchen | home item | article de maison
Home & Kitchen > Kitchen | kitchen item, tableware | article de cuisine, ustensile
= Home & Kitchen > Kitchen | kitchen set, starter kitchen box | kit de cuisine, coffret cuisine | mug pan bottle | plain
Home & Kitchen > Kitchen > Drinkware | drinking vessel, drinkware | verre, article de boisson
Home & Kitchen > Kitchen > Drinkware > Mugs | mug, coffee mug, tea cup | mug, tasse, tasse à café | mug | plain striped dotted
Home & Kitchen > Kitchen > Drinkware > Water bottles | water bottle, flask, insulated bottle | gourde, bouteille isotherme | bottle | plain
Home & Kitchen > Kitchen > Drinkware > Wine glasses | wine glass, goblet, stemware | verre à vin, verre à pied | wineglass | plain
Home & Kitchen > Kitchen > Frying pans | frying pan, skillet, wok | poêle, sauteuse, wok | pan | plain
Home & Kitchen > Furniture | furniture piece, furniture | meuble, mobilier
Home & Kitchen > Furniture > Chairs | chair, dining chair, stool | chaise, chaise de salle à manger, tabouret | chair | plain
Home & Kitchen > Furniture > Tables | table, desk, coffee table | table, bureau, table basse | table | plain
Home & Kitchen > Furniture > Sofas | sofa, couch, two-seater | canapé, sofa, divan | sofa | plain checked
Home & Kitchen > Lighting | lamp, light, LED lamp | lampe, luminaire, lampe LED
Home & Kitchen > Lighting > Table lamps | * | * | tablelamp | plain
Home & Kitchen > Lighting > Floor lamps | * | * | floorlamp | plain
Home & Kitchen > Lighting > Pendant lamps | * | * | pendant | plain
Home & Kitchen > Textiles | home textile | textile de maison
Home & Kitchen > Textiles > Rugs | rug, carpet, area rug | tapis, carpette, tapis de salon
Home & Kitchen > Textiles > Rugs > Striped rugs | * | * | rug | striped
Home & Kitchen > Textiles > Rugs > Checked rugs | * | * | rug | checked
Home & Kitchen > Textiles > Rugs > Plain rugs | * | * | rug | plain
Home & Kitchen > Textiles > Cushions | cushion, throw pillow, scatter cushion | coussin, oreiller déco, coussin moelleux
Home & Kitchen > Textiles > Cushions > Round cushions | * | * | roundcushion | plain floral
Home & Kitchen > Textiles > Cushions > Square cushions | * | * | cushion | plain floral
Home & Kitchen > Decor | decoration | décoration
Home & Kitchen > Decor > Vases | vase, flower vase, ceramic vase | vase, vase à fleurs, vase en céramique
Home & Kitchen > Decor > Vases > Tall vases | * | * | tallvase | plain
Home & Kitchen > Decor > Vases > Round vases | * | * | roundvase | plain
Home & Kitchen > Decor > Clocks | wall clock, clock | horloge, pendule murale | clock | plain
Electronics | device, gadget | appareil, gadget
Electronics > Phones | smartphone, mobile phone, handset | smartphone, téléphone portable, mobile | phone | plain
Electronics > Laptops | laptop, notebook computer, ultrabook | ordinateur portable, PC portable, ultrabook | laptop | plain
Electronics > Audio | audio gear | matériel audio
Electronics > Audio > Headphones | headphones, headset, over-ear headphones | casque audio, casque, écouteurs | headphones | plain
Electronics > Audio > Speakers | speaker, bluetooth speaker, soundbox | enceinte, haut-parleur, enceinte bluetooth | speaker | plain
Electronics > Cables | cable, cord, lead | câble, cordon
Electronics > Cables > USB cables | USB-C cable, USB charging lead, micro USB cord | câble USB-C, câble de charge USB | cable | plain
Electronics > Cables > HDMI cables | HDMI cable, HDMI 4K cord, HDMI lead | câble HDMI, cordon HDMI 4K | cable | plain
Electronics > Watches | watch, smartwatch, wristwatch | montre, montre connectée | watch | plain
Electronics > Cameras | camera, digital camera, compact camera | appareil photo, appareil photo compact, reflex | camera | plain
Toys & Games | toy, gift for kids | jouet, cadeau enfant
= Toys & Games | assorted toys, toy box lot | lot de jouets, coffret de jouets | ball car teddy blocks | plain
Toys & Games > Balls | ball, football, beach ball | ballon, balle, ballon de foot | ball | striped dotted
Toys & Games > Toy cars | toy car, racing car, die-cast car | petite voiture, voiture miniature | car | plain
Toys & Games > Soft toys | teddy bear, plush toy, soft toy | ours en peluche, peluche, doudou | teddy | plain
Toys & Games > Building blocks | building blocks, brick set | blocs de construction, briques | blocks | plain
Toys & Games > Boxed games | boxed game, family game | jeu en boîte, jeu familial
Toys & Games > Boxed games > Board games | board game, strategy game, dice game | jeu de société, jeu de plateau, jeu de dés | box | plain
Toys & Games > Boxed games > Puzzles | jigsaw, 1000 piece puzzle, jigsaw puzzle | puzzle, puzzle 1000 pièces, casse-tête | box | plain
Books | book, paperback, hardcover | livre, broché, relié
Books > Novels | novel, thriller, romance novel | roman, thriller, polar | book | plain
Books > Cookbooks | cookbook, recipe book, baking recipes | livre de cuisine, recettes, livre de recettes | book | plain
Books > Travel guides | travel guide, city guide, road atlas | guide de voyage, guide touristique, atlas routier | book | plain
Books > Children's books | picture book, bedtime stories, story book | album jeunesse, contes du soir, livre d'images | book | plain
Films & Music | disc, edition | disque, édition
Films & Music > DVDs | DVD, DVD film, DVD box set | DVD, film DVD, coffret DVD | disc | plain
Films & Music > Music CDs | music CD, album CD, audio CD | CD musique, album CD, CD audio | disc | plain
Films & Music > Video games | video game, console game, game disc | jeu vidéo, jeu console | disc | plain
Beauty | beauty product, care product | produit de beauté, soin
Beauty > Hair | hair care | soin cheveux
Beauty > Hair > Shampoo | shampoo, anti-dandruff shampoo | shampooing, shampoing antipelliculaire | tube | plain
Beauty > Hair > Conditioner | conditioner, hair mask | après-shampooing, masque capillaire | tube | plain
Beauty > Skin | skin care | soin peau
Beauty > Skin > Body lotion | body lotion, moisturiser, body milk | lait corporel, crème hydratante | tube | plain
Beauty > Skin > Shower gel | shower gel, body wash | gel douche, crème de douche | tube | plain
Beauty > Lipstick | lipstick, lip colour | rouge à lèvres, baume teinté | lipstick | plain
Garden | garden item, outdoor item | article de jardin
Garden > Plant pots | plant pot, flower pot, planter | pot de fleurs, cache-pot, jardinière | pot | plain striped
Garden > Shovels | shovel, spade, digging tool | pelle, bêche, outil de jardin | shovel | plain
Sports | sports gear, equipment | équipement de sport, matériel
Sports > Tents | tent, camping tent, dome tent | tente, tente de camping, tente dôme | tent | plain
Sports > Rackets | tennis racket, badminton racket, racquet | raquette de tennis, raquette de badminton | racket | plain
"""

# Tuned so that the demo teaches something: text alone near .8, picture alone near .55, both near .9.
_ZIPF_EXPONENT = 0.75
_LOT_SHARE = 0.35
_SHARED_DRAWING_BOOST = 2.0
_RANK_STEP = 23


@cache
def shelves() -> tuple[Shelf, ...]:
    """Every category with products, in the order of the tree; some are inner nodes."""
    rows = [[cell.strip() for cell in line.split("|")] for line in _TREE.strip().splitlines()]
    words = {row[0]: {"en": _nouns(row[1]), "fr": _nouns(row[2])} for row in rows if not row[0].startswith("=")}
    stocked = [row for row in rows if len(row) == 5]
    # A step that has no factor in common with the count spreads the popular shelves over the tree.
    ranks = [place * _RANK_STEP % len(stocked) for place in range(len(stocked))]
    drawn = Counter(row[3] for row in stocked)
    weights = [
        (_LOT_SHARE if row[0].startswith("=") else _SHARED_DRAWING_BOOST if drawn[row[3]] > 1 else 1.0)
        / (rank + 2) ** _ZIPF_EXPONENT
        for row, rank in zip(stocked, ranks, strict=True)
    ]
    found: list[Shelf] = []
    for row, weight in zip(stocked, weights, strict=True):
        path = row[0].removeprefix("= ")
        parent = path.rpartition(PATH_SEPARATOR)[0]
        vague = words[parent or path]
        nouns = vague if row[1] == "*" else {"en": _nouns(row[1]), "fr": _nouns(row[2])}
        found.append(
            Shelf(path, nouns, vague, tuple(row[3].split()), tuple(row[4].split()), weight / sum(weights))
        )
    return tuple(found)


def _nouns(cell: str) -> tuple[str, ...]:
    return tuple(noun.strip() for noun in cell.split(","))
